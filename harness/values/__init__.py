"""What travels between rooms and machines: frozen values with a versioned JSON form."""
