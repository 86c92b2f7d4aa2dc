"""Models of other libraries on our pages."""
