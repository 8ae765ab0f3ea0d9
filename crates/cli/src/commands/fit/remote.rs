//! The same run on a server: data goes there, events and the model come back.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use finetuner::event::{Event, Sink};
use finetuner::spec::RunSpec;
use finetuner::train::Report;
use serde_json::{Map, Value, json};
use service::client::Client;
use service::status::Status;
use service::wire::{NewRun, Resources, Run};

use super::{Placement, finished};
use crate::commands::pull::download;
use crate::exit;
use crate::terminal::{self, Terminal};

/// Uploads, starts, follows and pulls.
pub(super) fn run(
    client: &Client,
    spec: &RunSpec,
    placement: &Placement,
    json_lines: bool,
    terminal: &mut Terminal,
) -> Result<ExitCode> {
    spec.check()?;
    if spec
        .output
        .as_ref()
        .is_some_and(|output| std::fs::read_dir(output).is_ok_and(|mut found| found.next().is_some()))
    {
        let problem = "is not empty; name another folder for the model".to_owned();
        return Err(finetuner::Error::Output { path: spec.output.clone().unwrap_or_default(), problem }.into());
    }
    let new = NewRun {
        spec: upload(client, spec, terminal)?,
        name: placement.name.clone(),
        experiment: placement.experiment.clone(),
        description: String::new(),
        priority: placement.priority,
        resources: Resources {
            cpus: placement.cpus,
            gpus: placement.gpus,
            memory: placement.memory,
            disk: placement.disk,
            ..Resources::default()
        },
    };
    let run = client.create_run(&new)?;
    if placement.detach {
        terminal.info(&format!("run {} is accepted; `finetuner logs -f {}` follows it", run.name, run.name));
        terminal::print(&if json_lines { serde_json::to_string(&run)? + "\n" } else { format!("{}\n", run.name) })?;
        return Ok(ExitCode::SUCCESS);
    }
    terminal.info(&format!("run {} at {}", run.name, client.server()));
    leave_on_interrupt(run.name.clone())?;
    for event in client.events(&run.id, 0) {
        let event = event?;
        if json_lines {
            terminal::print(&(serde_json::to_string(&event)? + "\n"))?;
        } else {
            tell(&event.event, terminal);
        }
    }
    end(client, client.run(&run.id)?, spec, json_lines, terminal)
}

/// The spec with ids in place of paths, showing how far the uploads are.
fn upload(client: &Client, spec: &RunSpec, terminal: &mut Terminal) -> Result<Map<String, Value>> {
    Ok(client.upload_spec(spec, &mut |path, done, total| {
        let phase = format!("upload {}, KB", path.file_name().unwrap_or_default().display());
        terminal.progress(&phase, (done / 1000) as usize, (total / 1000) as usize, None);
    })?)
}

fn tell(event: &Event, terminal: &mut Terminal) {
    match event {
        Event::State { state } if Status::from_name(state) == Some(Status::Created) => {
            terminal.info("accepted; waiting for its turn");
        }
        event => terminal.send(event),
    }
}

/// Brings the model of a finished run, and says how the others ended.
fn end(client: &Client, run: Run, spec: &RunSpec, json_lines: bool, terminal: &mut Terminal) -> Result<ExitCode> {
    match run.status {
        Status::Finished => {
            let output = spec.output.clone().unwrap_or_else(|| PathBuf::from("runs").join(&run.name));
            download(client, &run.id, &output, terminal)?;
            let path = output.join("report.json");
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let report: Report = serde_json::from_str(&text)?;
            terminal::print(&if json_lines {
                json!({"event": "report", "output": output, "report": report}).to_string() + "\n"
            } else {
                finished(&report, &output.display().to_string())
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Status::Failed => bail!(run.error.map_or_else(|| "the run failed".to_owned(), |error| error.message)),
        _ => {
            terminal.warn(&format!("run {} was cancelled", run.name));
            Ok(ExitCode::from(exit::STOPPED))
        }
    }
}

/// Ctrl-C ends this program, not the run.
fn leave_on_interrupt(name: String) -> Result<()> {
    ctrlc::set_handler(move || {
        exit::hint_line(&format!(
            "the run goes on; `finetuner logs -f {name}` follows it, `finetuner cancel {name}` ends it"
        ));
        std::process::exit(i32::from(exit::STOPPED));
    })?;
    Ok(())
}
