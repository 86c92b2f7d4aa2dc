"""Wrong answers to the book's exercises, each with words that its verdict must say: a file for each chapter."""
