//! Typed limits and the knob table. Pure.
