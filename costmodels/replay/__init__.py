"""Event replay of a request trace through engine pools."""
