//! What is old makes room for what is new: artifacts, files and checkpoints go, their rows stay and say why.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info};

use crate::database::{Kept, What, now};
use crate::error::Result;
use crate::service::Service;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(60);

const DAY: i64 = 86_400_000;

/// Keeps within the settings until the server goes down.
pub(crate) async fn retain(service: Arc<Service>) {
    if service.settings.keep_days == 0 && service.settings.keep_bytes == 0 {
        return;
    }
    loop {
        if let Err(error) = sweep(&service).await {
            error!(%error, "cannot remove what is old for now");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = service.draining.cancelled() => return,
        }
    }
}

async fn sweep(service: &Service) -> Result<()> {
    let kept = service.database.kept().await?;
    let (days, bytes) = (service.settings.keep_days, service.settings.keep_bytes);
    for (kept, reason) in too_much(kept, now(), days, bytes) {
        if !service.database.forget(&kept.what, &reason).await? {
            continue;
        }
        info!(what = ?kept.what, reason, "removed");
        // What a crash leaves from here on, the next start removes.
        match &kept.what {
            What::Artifact(run) => service.storage.remove_run(run, None).await?,
            What::Checkpoint(run) => service.runner.clean(run, false).await?,
            What::File(file) => service.storage.remove_file(file).await?,
        }
    }
    Ok(())
}

/// What has to go and why: what is older than so many days, and then the oldest until the rest is within so many bytes; 0: no limit.
fn too_much(kept: Vec<Kept>, now: i64, days: u32, bytes: u64) -> Vec<(Kept, String)> {
    let mut total: u64 = kept.iter().map(|kept| kept.bytes).sum();
    let mut gone = Vec::new();
    for kept in kept {
        let reason = if days > 0 && now - kept.since > i64::from(days) * DAY {
            format!("removed: not used for more than {days} days")
        } else if bytes > 0 && total > bytes && kept.bytes > 0 {
            format!("removed: the oldest of more than {bytes} bytes")
        } else {
            continue;
        };
        total -= kept.bytes;
        gone.push((kept, reason));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_go_first_and_then_as_many_as_are_too_many() {
        let file = |name: &str, day: i64, bytes| Kept { what: What::File(name.into()), since: day * DAY, bytes };
        let kept = vec![file("a", 1, 5), file("b", 8, 5), file("c", 9, 5)];
        let gone = |days, bytes| -> Vec<i64> {
            too_much(kept.clone(), 10 * DAY, days, bytes).iter().map(|(kept, _)| kept.since / DAY).collect()
        };
        assert!(gone(0, 0).is_empty());
        assert_eq!(gone(5, 0), [1]);
        assert_eq!(gone(5, 10), [1]);
        assert_eq!(gone(5, 9), [1, 8]);
        assert_eq!(gone(0, 1), [1, 8, 9]);
    }
}
