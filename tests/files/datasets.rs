//! Classes, splits and images: what a dataset's names and files mean.
