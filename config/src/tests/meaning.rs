//! What good documents mean.
