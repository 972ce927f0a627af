//! The language from outside: what files draw which diagnostics, in every output format; explain
//! pages; the formatter; and that nothing a file contains can crash or hang the front end.

mod commands;
mod contract;
mod exact;
mod explain;
mod fixes;
mod fmt;
mod formats;
mod mutations;
mod outside;
mod reach;
mod speed;
mod support;
mod ui;
