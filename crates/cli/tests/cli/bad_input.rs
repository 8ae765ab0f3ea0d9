//! What goes wrong for users: one clear message, an exit code, never a panic, never half an artifact.

use finetuner::artifact::Output;
use serde_json::Value;

use super::support::Folder;

fn fit(folder: &Folder, data: &str, more: &str, code: i32, words: &[&str]) {
    let run =
        format!("fit --model model --train-data {data} --epochs 1 --batch-size 8 --threads 1 --output run {more}");
    folder.fail(&run, code, words);
    assert!(!folder.path("run/finetuner.json").exists() && !folder.path("run/model.safetensors").exists());
    std::fs::remove_dir_all(folder.path("run"))
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
        .unwrap();
}

#[test]
fn broken_data_is_named_with_file_and_line() {
    let folder = Folder::with_model();
    fit(&folder, "none.csv", "", 1, &["cannot read `none.csv`", "hint: relative paths"]);
    for (name, contents, words) in [
        (
            "columns.csv",
            &b"anchor,positive\ncard,chip\nrain,wind,snow\n"[..],
            &["columns.csv:3: expected 2 columns", "got 3"][..],
        ),
        ("quote.csv", b"anchor,positive\ncard,chip\n\"rain,wind\n", &["quote.csv:3: ", "quote"]),
        ("bytes.csv", b"anchor,positive\ncard,chip\nrain,w\xffnd\n", &["bytes.csv:3: expected UTF-8"]),
        ("empty.csv", b"anchor,positive\ncard,chip\nrain,\n", &["empty.csv:3: expected a text in column `positive`"]),
        ("nothing.csv", b"", &["nothing.csv: holds no examples"]),
        ("class.csv", b"text,label\ncard,a\nrain,a\n", &["class.csv: expected at least 2 classes, got only `a`"]),
        (
            "score.csv",
            b"sentence1,sentence2,score\ncard,chip,0.5\nrain,wind,NaN\n",
            &["score.csv:3: expected a finite number", "`NaN`"],
        ),
        (
            "broken.jsonl",
            b"{\"anchor\": \"card\", \"positive\": \"chip\"}\n{\"anchor\"\n",
            &["broken.jsonl:2: expected one JSON value"],
        ),
    ] {
        folder.write(name, contents);
        fit(&folder, name, "", 1, words);
    }
}

#[test]
fn a_run_that_could_not_start_does_not_block_its_folder() {
    let folder = Folder::with_model();
    let run = |data: &str| format!("fit --model model --train-data {data} --epochs 1 --batch-size 16 --output run");
    folder.fail(&run("none.csv"), 1, &["cannot read `none.csv`"]);
    folder.succeed(&run("train.csv"));
}

#[test]
fn fewer_rows_than_a_batch_are_one_smaller_batch() {
    let folder = Folder::with_model();
    folder.write("few.csv", "text,label\ncard chip,a\ncard pin,a\nrain wind,b\nrain snow,b\n");
    folder.succeed("fit --model model --train-data few.csv --epochs 1 --batch-size 64 --threads 1 --output run");
    assert_eq!(folder.json("run/report.json")["training"]["steps"], 1);
}

#[test]
fn unknown_names_and_options_get_the_nearest_known_one() {
    let folder = Folder::with_model();
    for (more, words) in [
        ("--loss TripletMarginLos", &["`TripletMarginLoss`"][..]),
        ("--loss-options margn=0.3", &["`margin`"]),
        ("--miner TripletMarginMine", &["`TripletMarginMiner`"]),
        ("--optimizer Adm", &["`Adam`"]),
        ("--scheduler linaer", &["`linear`"]),
        ("--callback EarlyStoping()", &["`EarlyStopping`"]),
        ("--pooling maen", &["`mean`"]),
        ("--kind lablled", &["`labelled`"]),
        ("--epochs none", &["`epochs`: expected a whole number, got `none` (--epochs)"]),
        ("--freeze layers:7-9", &["freeze"]),
    ] {
        fit(&folder, "train.csv", more, 2, words);
    }
    folder.write("run.toml", "train_data = \"train.csv\"\nlearning_rat = 1\n");
    folder.fail("fit run.toml", 2, &["did you mean `learning_rate`? (run.toml:2)", "hint: "]);
}

#[test]
fn a_model_that_does_not_fit_its_weights_is_refused() {
    let change = |key: &str, value: Value| {
        let folder = Folder::with_model();
        let mut config = folder.json("model/config.json");
        config[key] = value;
        folder.write("model/config.json", config.to_string());
        folder
    };
    fit(&change("num_hidden_layers", 3.into()), "train.csv", "", 1, &["layer.2.", "missing"]);
    fit(
        &change("intermediate_size", 64.into()),
        "train.csv",
        "",
        1,
        &["intermediate.dense.weight", "[48, 32]", "[64, 32]"],
    );
    fit(&change("model_type", "gpt9".into()), "train.csv", "", 1, &["gpt9", "bert"]);
}

#[test]
fn damaged_hostile_and_pickled_weights_are_refused() {
    let folder = Folder::with_model();
    let whole = folder.read("model/model.safetensors");
    for (bytes, words) in [
        (&whole[..whole.len() / 2], &["model.safetensors"][..]),
        (&whole[..4], &["model.safetensors"]),
        (&[0xff; 64], &["model.safetensors"]),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", &["model.safetensors"]),
    ] {
        folder.write("model/model.safetensors", bytes);
        fit(&folder, "train.csv", "", 1, words);
    }
    std::fs::remove_file(folder.path("model/model.safetensors")).unwrap();
    fit(&folder, "train.csv", "", 1, &["model.safetensors"]);
    folder.write("model/pytorch_model.bin", b"\x80\x02}q\x00.");
    fit(&folder, "train.csv", "", 1, &["pytorch_model.bin", "safetensors"]);
}

#[test]
fn a_model_that_is_none_is_refused_by_every_command() {
    let folder = Folder::with_model();
    folder.fail("evaluate --model all-MiniLM-L6-v3 --data test.csv", 1, &["did you mean `all-MiniLM-L6-v2`"]);
    folder.fail("encode --model nowhere --input texts.txt --output v.npy", 1, &["neither a folder, an alias"]);
    folder.fail("search --model org/name --input texts.txt card", 1, &["HF_HUB_OFFLINE"]);
    assert!(!folder.path("v.npy").exists());
}

#[test]
fn an_output_folder_that_is_in_use_or_holds_something_is_left_alone() {
    let folder = Folder::with_model();
    let run = "fit --model model --train-data train.csv --epochs 1 --threads 1 --output";
    let claimed = Output::claim(&folder.path("busy"), false).unwrap();
    folder.fail(&format!("{run} busy"), 1, &["output folder `busy` is in use by another run"]);
    drop(claimed);
    std::fs::create_dir(folder.path("full")).unwrap();
    folder.write("full/mine.txt", "mine");
    folder.fail(&format!("{run} full"), 1, &["output folder `full` is not empty"]);
    folder.fail(&format!("{run} full/mine.txt"), 1, &["is a file"]);
    folder.fail(&format!("{run} never --resume"), 1, &["nothing to resume"]);
    assert_eq!(folder.read("full/mine.txt"), b"mine");
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_of_anything() {
    let folder = Folder::with_model();
    // A file size limit stands in for the full disk: it holds for every user.
    let limited = |arguments: &str| {
        let inner = folder.command(arguments);
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" \"$@\""]).arg(inner.get_program());
        shell.args(inner.get_args()).current_dir(folder.path("")).env_clear();
        super::support::Ran::from(shell.output().unwrap())
    };
    let run = "fit --model model --train-data train.csv --epochs 1 --batch-size 16 --threads 1 --output run";
    limited(run).assert_failed(run, 1, &["cannot write", "model.safetensors"]);
    assert!(!folder.path("run/finetuner.json").exists() && !folder.path("run/model.safetensors").exists());
    folder.write("many.txt", "card chip\n".repeat(1000));
    for output in ["v.npy", "v.jsonl", "v.parquet"] {
        let encode = format!("encode --model model --input many.txt --output {output}");
        limited(&encode).assert_failed(&encode, 1, &["cannot write", output]);
        assert!(!folder.path(output).exists());
    }
}

#[test]
fn standard_input_is_checked_line_by_line() {
    let folder = Folder::with_model();
    folder.write("gap.txt", "card\n\nchip\n");
    folder.write("bytes.txt", b"card\n\xff\n");
    for (file, words) in
        [("gap.txt", "standard input:2: expected a text"), ("bytes.txt", "standard input:2: expected UTF-8")]
    {
        let mut command = folder.command("encode --model model --input - --output -");
        command.stdin(std::fs::File::open(folder.path(file)).unwrap());
        super::support::Ran::from(command.output().unwrap()).assert_failed(file, 1, &[words]);
    }
}
