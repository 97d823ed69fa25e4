//! What remote stores answer reaches the user, with the right exit code.
