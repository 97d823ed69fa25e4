//! The memory and processors that a worker offers are those that it really has.
