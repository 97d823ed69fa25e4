//! What in a pool's folder is an ingredient, what is not, and what is said of it.
