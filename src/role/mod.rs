//! Role files. Pure.
