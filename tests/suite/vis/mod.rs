mod bad_input;
mod parity;
mod stores;
mod support;
