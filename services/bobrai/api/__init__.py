"""HTTP: a request becomes a model, the model a row; a row becomes an answer. Publishes nothing and runs no handler."""
