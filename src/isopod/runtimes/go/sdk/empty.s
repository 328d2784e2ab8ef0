// Declarations without a body are allowed in a package that has assembly.
