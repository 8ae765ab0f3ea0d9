use super::*;
use crate::evaluate::Similarity;

fn parse(entries: &[&str]) -> Result<Callbacks> {
    Callbacks::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>(), "runs/first/")
}

fn early(entry: &str) -> EarlyStopping {
    parse(&[entry]).unwrap().early_stopping().unwrap()
}

/// Whether the run goes on after each value.
fn goes_on(mut early: EarlyStopping, values: &[f64]) -> Vec<bool> {
    values.iter().map(|value| early.observe(*value)).collect()
}

#[test]
fn callbacks_have_the_originals_fields_and_defaults() {
    let callbacks = parse(&[
        "EvaluationCallback(query_data='q, 1.csv', index_data=scifact:test, limit=20, distance='cosine', batch_size=8)",
        "BestModelCheckpoint",
        "EarlyStopping(monitor='average_precision', mode='max', patience=3, min_delta=1e-3, baseline=None)",
        " TrainingCheckpoint( last_k_epochs=1 ) ",
    ])
    .unwrap();
    let evaluation = callbacks.evaluations().next().unwrap();
    assert_eq!(evaluation.query_data, std::path::Path::new("q, 1.csv"));
    assert_eq!(evaluation.index_data, Some("scifact:test".into()));
    assert_eq!((evaluation.limit, evaluation.exclude_self, evaluation.similarity()), (20, true, Similarity::Cosine));
    let sentence = "EvaluationCallback: `batch_size` is not used: texts are packed by their tokens";
    assert_eq!(evaluation.without_effect().as_deref(), Some(sentence));
    assert_eq!(callbacks.best(), Some(Best::new("val_loss")));
    let early = callbacks.early_stopping().unwrap();
    assert_eq!((early.monitor.name(), early.patience, early.min_delta, early.baseline), ("map", 3, 1e-3, None));
    assert!(callbacks.monitors_metric());
    let EarlyStoppingOptions { monitor, mode, patience, min_delta, baseline } = EarlyStoppingOptions::default();
    assert_eq!((monitor.as_str(), mode, patience, min_delta, baseline), ("val_loss", Mode::Auto, 2, 0.0, None));
}

#[test]
fn without_callbacks_nothing_is_watched() {
    let callbacks = parse(&[]).unwrap();
    assert_eq!(
        (callbacks.best(), callbacks.early_stopping(), callbacks.evaluations().next().is_none()),
        (None, None, true)
    );
    assert!(!callbacks.monitors_metric());
    assert!(!parse(&["EarlyStopping", "BestModelCheckpoint(monitor=train_loss)"]).unwrap().monitors_metric());
}

#[test]
fn all_problems_are_listed_with_the_nearest_name() {
    let entries = [
        "EarlyStoping()",
        "EarlyStopping(patence=3)",
        "EarlyStopping(patience=0)",
        "EarlyStopping(patience=many)",
        "EarlyStopping(min_delta=-1)",
        "EarlyStopping(patience=2",
        "EarlyStopping(2)",
        "BestModelCheckpoint(mode=up)",
        "WiSEFTCallback(alpha=1.4)",
        "WandBLogger()",
        "TrainingCheckpoint(last_k_epochs=0)",
        "MLflowLogger(uri=http://localhost:5000)",
        "CSVLogger(metrics_logger_step=step)",
        "EvaluationCallback()",
        "EvaluationCallback(query_data=q.csv,distance=cosin)",
        "EvaluationCallback(query_data=q.csv,model=clip-txt)",
        "EvaluationCallback(query_data=q.csv,steps_per_interval=0)",
    ];
    let Error::Spec { problems } = parse(&entries).unwrap_err() else { panic!() };
    let expected = [
        "`EarlyStoping` is not known, did you mean `EarlyStopping`?",
        "there is no field `patence`, did you mean `patience`?",
        "`patience`: expected 1 or more",
        "`patience`: invalid type: string \"many\", expected usize; the default is 2",
        "`min_delta`: expected 0 or more, got -1",
        "expected `)` at the end",
        "expected `key=value`, got `2`",
        "`mode`: unknown variant `up`, expected one of `auto`, `min`, `max`; the default is \"auto\"",
        "`alpha`: expected a number of 0 to 1 or `auto`, got 1.4",
        NO_WANDB,
        "`last_k_epochs`: expected 1 or more",
        "there is no field `uri`, known are tracking_uri, experiment_name, run_name, metrics_logger_step, log_zero_shot",
        "`metrics_logger_step`: unknown variant `step`, expected `batch` or `epoch`; the default is \"batch\"",
        "needs `query_data`",
        "`distance`: `cosin` is not known, did you mean `cosine`?",
        "`model`: the run has no model `clip-txt`, did you mean `clip-text`?",
        "`steps_per_interval`: expected 1 or more, got 0",
    ];
    let got: Vec<String> = problems.iter().map(|problem| problem.problem.clone()).collect();
    let expected: Vec<String> =
        entries.iter().zip(expected).map(|(entry, text)| format!("`{entry}`: {text}")).collect();
    assert_eq!(got, expected);
}

#[test]
fn every_option_of_an_evaluation_is_read() {
    let entry = "EvaluationCallback(query_data=q.csv, limit=5, exclude_self=False, distance=sqeuclidean, \
        steps_per_interval=7, gather_examples=True, num_example_queries=8, num_workers=0, query_sample_size=50)";
    let callbacks = parse(&[entry]).unwrap();
    let evaluation = callbacks.evaluations().next().unwrap();
    assert_eq!((evaluation.limit, evaluation.exclude_self, evaluation.examples()), (5, false, 8));
    assert_eq!((evaluation.steps_per_interval, evaluation.query_sample_size), (Some(7), Some(50)));
    assert_eq!(evaluation.similarity(), Similarity::Euclidean, "a square does not change the order");
    let sentence = "EvaluationCallback: `num_workers` is not used: `threads` says how many threads work";
    assert_eq!(evaluation.without_effect().as_deref(), Some(sentence));

    let callbacks = parse(&["EvaluationCallback(query_data=q.csv, num_example_queries=8)"]).unwrap();
    let evaluation = callbacks.evaluations().next().unwrap();
    assert_eq!(evaluation.examples(), 3, "as without a callback");
    assert!(evaluation.without_effect().unwrap().contains("needs `gather_examples=True`"));
}

#[test]
fn monitors_take_the_prefix_of_the_metrics() {
    let name = |evaluation: &str, monitor: &str| {
        let entries = [
            format!("EvaluationCallback(query_data=q.csv{evaluation})"),
            format!("EarlyStopping(monitor={monitor})"),
            format!("BestModelCheckpoint(monitor={monitor})"),
        ];
        let callbacks = parse(&entries.each_ref().map(String::as_str)).unwrap();
        assert_eq!(callbacks.best().unwrap().monitor.name(), callbacks.early_stopping().unwrap().monitor.name());
        callbacks.best().unwrap().monitor.name().to_owned()
    };
    assert_eq!(name(", caption=quora", "quora_average_precision"), "map");
    assert_eq!(name(", caption=quora", "average_precision"), "map");
    assert_eq!(name(", output_model_names=True", "first_mrr"), "mrr");
    assert_eq!(name(", caption=quora, output_model_names=True", "quora_first_mrr"), "mrr");
    assert_eq!(name(", caption=quora", "val_loss"), "val_loss");
}

#[test]
fn several_evaluations_are_told_apart_by_their_captions() {
    let monitored = |monitor: &str| {
        let entries = [
            "EvaluationCallback(query_data=q.csv)",
            "EvaluationCallback(query_data=r.csv,caption=web)",
            "EvaluationCallback(query_data=s.csv,caption=web_news)",
            &format!("BestModelCheckpoint(monitor={monitor})"),
        ];
        parse(&entries).map(|callbacks| callbacks.best().unwrap().monitor.name().to_owned())
    };
    assert_eq!(monitored("average_precision").unwrap(), "map");
    assert_eq!(monitored("web_average_precision").unwrap(), "web_map");
    assert_eq!(monitored("web_news_mrr").unwrap(), "web_news_mrr");
    let twice = ["EvaluationCallback(query_data=q.csv)", "EvaluationCallback(query_data=r.csv)"];
    let error = parse(&twice).unwrap_err().to_string();
    assert!(error.contains("EvaluationCallback number 2: give it a `caption` of its own"), "{error}");
}

#[test]
fn loggers_and_mixtures_are_read() {
    let callbacks = parse(&[
        "WiSEFTCallback",
        "TensorBoardLogger(log_dir=logs)",
        "CSVLogger()",
        "CSVLogger(path=numbers.csv,metrics_logger_step=epoch,log_zero_shot=False)",
        "MLflowLogger(tracking_uri=http://localhost:5000,experiment_name=first)",
        "TrainingCheckpoint(last_k_epochs=3)",
    ])
    .unwrap();
    assert_eq!((callbacks.interpolation(), callbacks.last_k_epochs()), (Some(Alpha::Fixed(0.4)), 3));
    assert_eq!(callbacks.loggers().len(), 4);
    assert_eq!(parse(&["WiSEFTCallback(alpha=auto)"]).unwrap().interpolation(), Some(Alpha::Auto));
    let entries = ["WiSEFTCallback".to_owned(), "CSVLogger()".to_owned(), "x(".to_owned()];
    assert_eq!(Callbacks::without_loggers(&entries), ["WiSEFTCallback", "x("]);
}

#[test]
fn two_of_a_kind_are_refused() {
    let error = parse(&["EarlyStopping()", "BestModelCheckpoint()", "EarlyStopping(patience=3)"]).unwrap_err();
    assert!(error.to_string().contains("`EarlyStopping(patience=3)`: there is another one"), "{error}");
}

#[test]
fn losses_are_best_low_and_metrics_best_high() {
    let seen = |mut best: Best, values: [f64; 5]| values.map(|value| best.observe(value));
    let values = [0.5, 0.4, 0.4, f64::NAN, 0.6];
    assert_eq!(seen(Best::new("val_loss"), values), [true, true, false, false, false]);
    assert_eq!(seen(Best::new("mrr"), values), [true, false, false, false, true]);
    let mode = |mode| parse(&[&format!("BestModelCheckpoint(monitor=mrr,mode={mode})")]).unwrap().best().unwrap();
    assert_eq!(seen(mode("min"), values), [true, true, false, false, false]);
    assert_eq!(seen(mode("auto"), values), seen(mode("max"), values));
}

#[test]
fn a_run_stops_after_patience_values_without_improvement() {
    assert_eq!(
        goes_on(early("EarlyStopping()"), &[1.0, 0.9, 0.95, 0.8, 0.8, 0.8]),
        [true, true, true, true, true, false]
    );
    assert_eq!(goes_on(early("EarlyStopping(monitor=mrr,patience=1)"), &[0.1, 0.2, 0.2]), [true, true, false]);
    assert_eq!(goes_on(early("EarlyStopping()"), &[f64::NAN, f64::NAN]), [true, false]);
}

#[test]
fn an_improvement_within_min_delta_does_not_count() {
    assert_eq!(
        goes_on(early("EarlyStopping(min_delta=0.1)"), &[1.0, 0.95, 0.85, 0.8, 0.8]),
        [true, true, true, true, false]
    );
    assert_eq!(goes_on(early("EarlyStopping(monitor=map,min_delta=0.1)"), &[0.5, 0.55, 0.58]), [true, true, false]);
}

#[test]
fn a_baseline_stands_in_for_the_best_value() {
    assert_eq!(
        goes_on(early("EarlyStopping(baseline=0.5)"), &[0.4, 0.45, 0.6, 0.4, 0.6, 0.5]),
        [true, true, true, true, true, false]
    );
}

#[test]
fn the_monitored_value_is_found_by_our_name_or_the_originals() {
    let values =
        |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>();
    let mut best = parse(&["BestModelCheckpoint(monitor=reciprocal_rank)"]).unwrap().best().unwrap();
    assert!(best.observe_named(&values(&[("val_loss", 9.0), ("mrr", 0.5)])));
    assert!(!best.observe_named(&values(&[("val_loss", 1.0), ("mrr", 0.4)])));

    let error = early("EarlyStopping(monitor=mmr)").check(&values(&[("mrr", 0.4)])).unwrap_err().to_string();
    assert_eq!(error, "`callbacks`: `mmr` is monitored but not measured, did you mean `mrr`?");
    let error = early("EarlyStopping()").check(&[]).unwrap_err().to_string();
    let expected =
        "`callbacks`: `val_loss` is monitored but not measured (give `eval_data` or `val_split`), nor anything else";
    assert_eq!(error, expected);
}

#[test]
fn before_the_first_epoch_there_is_no_training_loss_to_judge() {
    assert!(!Best::new("train_loss").observe_named(&[]));
    let mut early = early("EarlyStopping(monitor=train_loss,patience=1)");
    assert!(early.check(&[]).is_ok() && early.observe_named(&[]));
}

#[test]
fn what_was_observed_survives_a_checkpoint() {
    let (mut best, mut early) = (Best::new("val_loss"), early("EarlyStopping(baseline=0.3)"));
    best.observe(0.5);
    early.observe(0.5);
    let mut restored: (Best, EarlyStopping) = serde_json::from_value(serde_json::json!([best, early])).unwrap();
    assert_eq!(restored, (best, early));
    assert!(!restored.0.observe(0.6) && !restored.1.observe(0.6));
}
