"""The product as its users meet it: commands, HTTP, a terminal."""
