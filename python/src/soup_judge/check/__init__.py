"""Whether a judge keeps what the protocol promises."""
