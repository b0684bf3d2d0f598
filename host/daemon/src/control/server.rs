//! The control socket's HTTP server.
