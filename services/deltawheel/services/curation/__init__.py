"""Curation: closes each prompt's group, forms pairs, checks them, stores or quarantines them."""
