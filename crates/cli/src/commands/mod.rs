//! Every command, one file each.

#[cfg(feature = "server")]
mod answer;
mod cancel;
mod check;
mod devices;
mod encode;
mod evaluate;
mod fit;
mod login;
mod logout;
mod logs;
mod mine;
mod models;
mod pull;
mod runs;
mod search;
#[cfg(feature = "server")]
mod serve;
mod synthesize;
#[cfg(feature = "server")]
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use finetuner::train::thread_pool;

use crate::terminal::Terminal;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Fit(fit::Arguments),
    Check(check::Arguments),
    Evaluate(evaluate::Arguments),
    Encode(encode::Arguments),
    Search(search::Arguments),
    Mine(mine::Arguments),
    Synthesize(synthesize::Arguments),
    Models(models::Arguments),
    Devices(devices::Arguments),
    #[cfg(feature = "server")]
    Serve(serve::Arguments),
    Login(login::Arguments),
    Logout(logout::Arguments),
    Runs(runs::Arguments),
    Logs(logs::Arguments),
    Cancel(cancel::Arguments),
    Pull(pull::Arguments),
    #[cfg(feature = "server")]
    Worker(worker::Arguments),
    #[cfg(feature = "server")]
    Answer(answer::Arguments),
}

/// Runs a command on `threads` threads, or on one per core.
pub(crate) fn run(command: Command, threads: Option<usize>, terminal: &mut Terminal) -> Result<ExitCode> {
    let result = match command {
        Command::Fit(arguments) => return fit::run(arguments, threads, terminal), // makes its own threads
        #[cfg(feature = "server")]
        Command::Worker(arguments) => return worker::run(&arguments), // so does this
        #[cfg(feature = "server")]
        Command::Answer(arguments) => return answer::run(&arguments, threads),
        Command::Check(arguments) => return thread_pool(threads)?.install(|| check::run(&arguments, terminal)),
        Command::Evaluate(arguments) => thread_pool(threads)?.install(|| evaluate::run(&arguments, terminal)),
        Command::Encode(arguments) => thread_pool(threads)?.install(|| encode::run(&arguments, terminal)),
        Command::Search(arguments) => thread_pool(threads)?.install(|| search::run(&arguments, terminal)),
        Command::Mine(arguments) => thread_pool(threads)?.install(|| mine::run(&arguments, terminal)),
        Command::Synthesize(arguments) => thread_pool(threads)?.install(|| synthesize::run(&arguments, terminal)),
        Command::Models(arguments) => models::run(&arguments),
        Command::Devices(arguments) => thread_pool(threads)?.install(|| devices::run(&arguments)),
        #[cfg(feature = "server")]
        Command::Serve(arguments) => serve::run(arguments),
        Command::Login(arguments) => login::run(arguments, terminal),
        Command::Logout(_) => logout::run(terminal),
        Command::Runs(arguments) => runs::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments, terminal),
        Command::Cancel(arguments) => cancel::run(&arguments, terminal),
        Command::Pull(arguments) => pull::run(&arguments, terminal),
    };
    result.map(|()| ExitCode::SUCCESS)
}

/// A number of threads, hits or lines.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "expected a whole number of 1 or more".to_owned())
}
