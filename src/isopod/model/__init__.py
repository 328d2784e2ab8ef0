"""What isopod talks about: frozen values without I/O."""
