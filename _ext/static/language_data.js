// Sphinx lists here the words that its own search leaves out; `search.js` brings its own.
