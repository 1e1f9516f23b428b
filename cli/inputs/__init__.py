"""What commands make of paths and options: encoders, features, maps, pairs, labels, episodes."""
