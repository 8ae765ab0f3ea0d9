use super::*;

fn schedule(name: &str, warmup: f64) -> Schedule {
    Schedule::new(Some(name), &Options::new(), warmup, 110).unwrap()
}

#[test]
fn schedules_follow_transformers() {
    // transformers.get_scheduler(name, optimizer, num_warmup_steps=10, num_training_steps=110), lr 1e-3
    for (name, expected) in [
        ("linear", [0.0, 0.5, 1.0, 0.75, 0.5, 0.0]),
        ("cosine", [0.0, 0.5, 1.0, 0.853_553_390_593, 0.5, 0.0]),
        ("polynomial", [0.0, 0.5, 1.0, 0.750_025, 0.500_05, 1e-4]),
        ("constant_with_warmup", [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ] {
        let schedule = schedule(name, 10.0);
        for (step, expected) in [0, 5, 10, 35, 60, 110].into_iter().zip(expected) {
            let factor = schedule.factor(step, 1e-3);
            assert!((factor - expected).abs() < 1e-9, "{name} at {step}: {factor}, expected {expected}");
        }
    }
}

#[test]
fn a_warmup_below_one_is_a_share_of_the_run() {
    let (share, steps) = (schedule("linear", 0.1), schedule("linear", 11.0));
    assert!((0..110).all(|step| share.factor(step, 1e-3) == steps.factor(step, 1e-3)));
}

#[test]
fn every_schedule_has_the_values_of_the_reference() {
    // Written by `tests/golden/optim.py`.
    let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/optim.json")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for case in golden["schedules"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let number = |key: &str| case[key].as_u64().unwrap();
        let options = case["options"].as_object().unwrap();
        let schedule = Schedule::new(Some(name), options, number("warmup") as f64, number("total") as usize).unwrap();
        for (step, expected) in case["factors"].as_array().unwrap().iter().enumerate() {
            let (factor, expected) = (schedule.factor(step, 1e-3), expected.as_f64().unwrap());
            assert!((factor - expected).abs() < 1e-9, "{name} {options:?} at {step}: {factor}, expected {expected}");
        }
        seen.insert(name.to_owned());
    }
    assert!(names().iter().all(|name| seen.contains(*name)), "{seen:?}");
}

#[test]
fn options_that_contradict_are_refused() {
    let problem = |name: &str, options: serde_json::Value| {
        Schedule::new(Some(name), options.as_object().unwrap(), 0.0, 10).unwrap_err().to_string()
    };
    assert!(problem("linear", serde_json::json!({"power": 2})).contains("unknown option"));
    assert!(
        problem("cosine_with_min_lr", serde_json::json!({})).contains("expected one of `min_lr` and `min_lr_rate`")
    );
    assert!(problem("multi_step", serde_json::json!({})).contains("milestones"));
    assert!(problem("reduce_lr_on_plateau", serde_json::json!({})).contains("functions of the step"));
}

#[test]
fn an_unknown_schedule_suggests_the_nearest() {
    let error = Schedule::new(Some("cosin"), &Options::new(), 0.0, 10).unwrap_err().to_string();
    assert!(error.contains("did you mean `cosine`"), "{error}");
}
