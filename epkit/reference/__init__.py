"""What the physics is checked against: exact solutions, autograd, and circuits solved by SPICE."""
