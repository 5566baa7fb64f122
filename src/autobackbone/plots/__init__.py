"""Pictures: each is facts, a record that can be tested, plus their drawing."""
