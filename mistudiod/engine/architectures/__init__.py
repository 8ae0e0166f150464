"""One file for each kind of sparse autoencoder in training. All of them save the same canonical form, sae.py's."""
