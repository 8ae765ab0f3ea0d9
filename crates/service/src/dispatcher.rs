//! Desired state to running workers, again and again: the rows say what is wanted, and what is missing is started.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{Instrument, error};

use crate::database::{Ending, RunRow, now};
use crate::error::{Error, Result};
use crate::queue::{Candidate, Capacity, Decision, decide};
use crate::service::Service;
use crate::status::Status;
use crate::supervisor::Supervisor;
use crate::telemetry::run_span;

/// How often the rows are looked at when nobody says that they have changed.
const LOOK: Duration = Duration::from_secs(1);

/// Starts runs and holds them until the server goes down; then waits for their workers to have saved.
pub(crate) async fn dispatch(service: Arc<Service>) {
    let mut held: HashMap<String, JoinHandle<()>> = HashMap::new();
    while !service.draining.is_cancelled() {
        held.retain(|_, task| !task.is_finished());
        if let Err(error) = look(&service, &mut held).await {
            error!(%error, "cannot look at the queue for now");
        }
        tokio::select! {
            () = service.wake.notified() => {}
            () = service.draining.cancelled() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    for (_, task) in held {
        let _ = task.await;
    }
}

async fn look(service: &Arc<Service>, held: &mut HashMap<String, JoinHandle<()>>) -> Result<()> {
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    for run in service.database.live_runs().await? {
        let elsewhere = run.lease_owner.as_ref().is_some_and(|owner| *owner != service.instance);
        if held.contains_key(&run.id) || elsewhere && run.lease_until > now() {
            running.push(candidate(&run));
        } else if run.status == Status::Started {
            // It had its turn already: its worker may be alive.
            running.push(candidate(&run));
            hold(service, held, run).await?;
        } else if run.cancel {
            cancel(service, &run).await?;
        } else {
            waiting.push(run);
        }
    }
    let settings = &service.settings;
    let capacity = Capacity {
        runs: settings.runs,
        runs_per_key: settings.runs_per_key,
        cpus: settings.all_cpus(),
        gpus: settings.gpus,
        memory: settings.memory,
        disk: settings.disk,
    };
    let candidates: Vec<Candidate> = waiting.iter().map(candidate).collect();
    for (run, decision) in waiting.into_iter().zip(decide(&candidates, &running, capacity)) {
        match decision {
            Decision::Start => hold(service, held, run).await?,
            Decision::Wait(reason) if run.reason.as_ref() != Some(&reason) => {
                service.database.set_reason(&run.id, &reason).await?;
            }
            Decision::Wait(_) => {}
        }
    }
    Ok(())
}

/// Claims a run and sees to it, unless another server was first.
async fn hold(service: &Arc<Service>, held: &mut HashMap<String, JoinHandle<()>>, run: RunRow) -> Result<()> {
    let Some(epoch) = service.database.claim(&run, &service.instance, service.lease()).await? else { return Ok(()) };
    let Some(run) = service.database.any_run(&run.id).await? else { return Ok(()) };
    service.feed.tell(&run.id, run.last_event, &[]);
    let (id, span) = (run.id.clone(), run_span(&run.id));
    let supervised = Supervisor::new(service.clone(), run, epoch).supervise();
    held.insert(id, tokio::spawn(supervised.instrument(span)));
    Ok(())
}

/// Ends a run that has not begun.
async fn cancel(service: &Arc<Service>, run: &RunRow) -> Result<()> {
    match service.database.end_waiting(run, &Ending::Cancelled).await {
        // It has begun in the meantime, and whoever holds it ends it.
        Err(Error::LeaseLost(_)) => {}
        done => done?,
    }
    if let Some(run) = service.database.any_run(&run.id).await? {
        service.feed.tell(&run.id, run.last_event, &[]);
    }
    Ok(())
}

fn candidate(run: &RunRow) -> Candidate {
    Candidate { key: run.key.clone(), resources: run.resources }
}
