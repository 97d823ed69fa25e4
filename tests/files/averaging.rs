//! Averaging without data: no validation set, any architecture, any dtype.
