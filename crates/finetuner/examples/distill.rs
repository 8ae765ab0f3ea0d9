//! Makes a smaller encoder from a larger one: some of its layers, trained until the embeddings are the same again.
//!
//! ```text
//! cargo run --release --example distill -- TEACHER TEXTS OUTPUT [layers=0,2,4] [epochs=2] [rate=2e-4] [batch=256]
//! ```
//! The student keeps the teacher's embeddings and the named layers and minimises the mean squared distance between its
//! embedding and the teacher's, both of length one, over every text of TEXTS (one a line). `mini` is made so; see
//! `mini/README.md`.

#![expect(clippy::print_stderr, reason = "a program that talks")]

use std::path::Path;
use std::time::Instant;

use engine::random::Key;
use engine::{Cpu, Device, Gradients, Tape, Tensor};
use finetuner::artifact::safetensors::{SCALE, quantise};
use finetuner::artifact::{ArtifactWriter, ModelFolder, NamedTensor, Output, Values};
use finetuner::data::Modality;
use finetuner::data::random::Random;
use finetuner::encoder::{Input, Model, ModelOptions, Role};
use finetuner::optim::{Optimizer, Schedule};
use finetuner::tokens::pack;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [teacher, texts, output, ..] = &arguments[..] else {
        return Err("usage: distill TEACHER TEXTS OUTPUT [layers=0,2,4] [epochs=2] [rate=2e-4] [batch=256]".into());
    };
    let option = |name: &str, default: &str| {
        let found = arguments[3..].iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
        found.unwrap_or(default).to_owned()
    };
    let layers: Vec<usize> = option("layers", "0,2,4").split(',').map(str::parse).collect::<Result<_, _>>()?;
    let epochs: usize = option("epochs", "2").parse()?;
    let rate: f64 = option("rate", "2e-4").parse()?;
    let batch_size: usize = option("batch", "256").parse()?;

    let options = ModelOptions { max_length: Some(64), ..Default::default() };
    let teacher = Model::open(ModelFolder::open(Path::new(teacher))?, &options)?;
    let output = Output::claim(Path::new(output), false)?;
    let mut student = cut(&teacher, &layers, &output, &options)?;
    let texts = std::fs::read_to_string(texts)?;
    let texts: Vec<&str> = texts.lines().collect();

    let started = Instant::now();
    let (targets, _) = teacher.embed(&Cpu::F32, &texts, (Modality::Text, Role::Plain), |_| Ok(()))?;
    eprintln!("{} texts embedded by the teacher in {:.0} s", texts.len(), started.elapsed().as_secs_f64());

    let width = student.encoder.dimension();
    let steps = epochs * texts.len().div_ceil(batch_size);
    let schedule = Schedule::new(Some("linear"), &Default::default(), 0.05, steps)?;
    let mut optimizer = Optimizer::new("AdamW", &Default::default(), student.encoder.depths())?;
    let mut gradients = Gradients::new(&student.encoder.parameters);
    let mut step = 0;
    let mut smooth = f64::NAN;
    for epoch in 0..epochs {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        Random::new(7, epoch as u64).shuffle(&mut order);
        for places in order.chunks(batch_size) {
            let chosen: Vec<&str> = places.iter().map(|&place| texts[place]).collect();
            let rows: Vec<u32> = (0..chosen.len() as u32).collect();
            let batches = pack(&student.preprocessor.tokenizer()?.encode(&chosen)?, &rows, usize::MAX);
            let mut tape = Tape::recording(&Cpu::F32, &student.encoder.parameters);
            let embeddings = student.encoder.forward(&mut tape, &Input::Tokens(batches[0].clone()), None::<Key>)?;
            // mean over the batch of |y - t|^2, with gradient 2 (y - t) / batch
            let mut upstream = embeddings.value().clone();
            let mut loss = 0.0;
            for (row, &place) in places.iter().enumerate() {
                let target = &targets[place * width..(place + 1) * width];
                for (value, target) in upstream.data_mut()[row * width..].iter_mut().zip(target) {
                    let difference = *value - target;
                    loss += f64::from(difference * difference) / places.len() as f64;
                    *value = 2.0 * difference / places.len() as f32;
                }
            }
            gradients.clear();
            let upstream: Tensor = upstream;
            tape.backward(&embeddings, upstream, &mut gradients)?;
            let now = rate * schedule.factor(step, rate);
            optimizer.step(&Cpu::F32 as &dyn Device, &mut student.encoder.parameters, &gradients, now, 1.0)?;
            smooth = if smooth.is_nan() { loss } else { 0.98 * smooth + 0.02 * loss };
            step += 1;
            if step % 50 == 0 || step == steps {
                eprintln!("step {step} of {steps}: loss {smooth:.4}, {:.0} s", started.elapsed().as_secs_f64());
            }
        }
    }
    drop(optimizer);
    write(&student, &output)
}

/// The teacher with these layers only, opened again as a model of its own.
fn cut(teacher: &Model, layers: &[usize], output: &Output, options: &ModelOptions) -> Result<Model, Failure> {
    let mut config = teacher.folder.config.clone();
    config["num_hidden_layers"] = layers.len().into();
    let mut tensors = Vec::new();
    for (name, shape, values) in teacher.encoder.weights(0) {
        let renamed = match name.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
            Some((layer, rest)) => match layers.iter().position(|kept| kept.to_string() == layer) {
                Some(place) => format!("encoder.layer.{place}.{rest}"),
                None => continue,
            },
            None if name.starts_with("pooler.") => continue,
            None => name.to_owned(),
        };
        tensors.push((renamed, shape, values));
    }
    let mut writer = ArtifactWriter::new(output)?;
    writer.json("config.json", &config)?;
    writer.tokenizer(&teacher.folder)?;
    let tower = teacher.encoder.main_tower();
    writer.layout(&teacher.encoder.layout(tower), tower.backbone().width())?;
    writer.limits_and_prompts(teacher.folder.max_length, false, &Default::default(), None)?;
    let named: Vec<_> = tensors.iter().map(|(name, shape, values)| NamedTensor::f32(name, shape, values)).collect();
    writer.tensors("model.safetensors", &named)?;
    writer.finish(&serde_json::Value::Null, Default::default())?;
    Ok(Model::open(ModelFolder::open(output.folder())?, options)?)
}

/// Writes the student, its matrices in one byte an element.
fn write(student: &Model, output: &Output) -> Result<(), Failure> {
    let mut writer = ArtifactWriter::new(output)?;
    student.save(&mut writer, None)?;
    // Trained on short texts, but the positions are the teacher's.
    writer.limits_and_prompts(256, false, &Default::default(), None)?;
    let weights = student.encoder.weights(0);
    let small: Vec<_> = weights
        .iter()
        .map(|(name, shape, values)| match shape {
            [rows, columns] => {
                let (elements, scales) = quantise(values, *columns);
                (*name, *shape, Err((elements, [*rows], scales, format!("{name}{SCALE}"))))
            }
            _ => (*name, *shape, Ok(*values)),
        })
        .collect();
    let mut tensors = Vec::new();
    for (name, shape, values) in &small {
        match values {
            Ok(values) => tensors.push(NamedTensor::f32(name, shape, values)),
            Err((elements, rows, scales, scale_name)) => {
                tensors.push(NamedTensor { name, shape, values: Values::I8(elements) });
                tensors.push(NamedTensor::f32(scale_name, rows, scales));
            }
        }
    }
    writer.tensors("model.safetensors", &tensors)?;
    writer.finish(&serde_json::Value::Null, Default::default())?;
    Ok(())
}
