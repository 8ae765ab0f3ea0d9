//! How the program ends: exit codes, and errors told once with their hints apart.

use std::io::Write;
use std::process::ExitCode;

use console::style;
use finetuner::Error;
use service::client;

/// The command line or the spec is wrong; as clap says it too.
const USAGE: u8 = 2;

/// Stopped by Ctrl-C, as shells count it: 128 + SIGINT.
pub(crate) const STOPPED: u8 = 130;

/// Tells an error and gives its exit code. That nobody reads our output any more is no failure.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    for message in messages(error) {
        tell(&style("error:").red().bold().for_stderr().to_string(), &message);
    }
    if let Some(hint) = hint(error) {
        self::hint_line(hint);
    }
    if matches!(error.downcast_ref(), Some(Error::Spec { .. })) || is_spec_refusal(error) {
        return ExitCode::from(USAGE);
    }
    ExitCode::FAILURE
}

/// Whether a server refused a spec: the same mistake, found elsewhere.
fn is_spec_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(client::Error::Refused { problem, .. }) if problem.code == "invalid_spec")
}

/// Advice on its own line.
pub(crate) fn hint_line(hint: &str) {
    tell(&style("hint:").cyan().bold().for_stderr().to_string(), hint);
}

/// Something to act on.
pub(crate) fn warning_line(message: &str) {
    tell(&style("warning:").yellow().bold().for_stderr().to_string(), message);
}

fn tell(label: &str, message: &str) {
    // Where even standard error is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{label} {message}");
}

/// Every problem of a spec is a message of its own; other errors are one, with causes that they do not name themselves.
fn messages(error: &anyhow::Error) -> Vec<String> {
    if let Some(Error::Spec { problems }) = error.downcast_ref() {
        return problems.iter().map(ToString::to_string).collect();
    }
    if is_spec_refusal(error) {
        return error.to_string().lines().map(str::to_owned).collect();
    }
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    vec![message]
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref()? {
        Error::Spec { .. } => Some("`--help` lists every field with its default"),
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Some("relative paths start at the current folder")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_named_already_is_not_repeated() {
        let missing = std::fs::read("no/such/file").unwrap_err();
        let reason = missing.to_string();
        let error = anyhow::Error::from(Error::io("read", "no/such/file")(missing));
        assert_eq!(messages(&error), [format!("cannot read `no/such/file`: {reason}")]);
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(messages(&error), ["outer: inner"]);
    }
}
