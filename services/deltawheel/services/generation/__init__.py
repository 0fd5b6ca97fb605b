"""Generation: deals each prompt to two generators and stores the traces that they write."""
