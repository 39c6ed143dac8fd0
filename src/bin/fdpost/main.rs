//! The command `fdpost`.
#![forbid(unsafe_code)]

mod child;
mod demo;
mod footprint;
mod hostile;
mod picture;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a subcommand comes to: the error is the one sentence that the user reads.
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Whole messages with file descriptors between processes that do not trust each other.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two processes exchange a picture as file descriptors; then a hostile peer is refused.
    Demo,
    /// The demo's second process: inverts one picture, over the socket that is its standard input.
    #[command(hide = true)]
    DemoInverter,
    /// The demo's hostile peer, over the socket that is its standard input.
    #[command(hide = true)]
    DemoHostile {
        /// What it sends.
        attack: hostile::Attack,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo => demo::run(),
        Command::DemoInverter => picture::invert(),
        Command::DemoHostile { attack } => hostile::attack(attack),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fdpost: {error}");
            ExitCode::FAILURE
        }
    }
}
