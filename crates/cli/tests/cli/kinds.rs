//! `fit` on data of every kind: texts alone, scored triplets, a guide.

use super::support::Folder;

const FIT: &str = "fit --model model --epochs 1 --batch-size 8 --threads 1 --output run";

fn fits(folder: &Folder, arguments: &str, said: &[&str]) {
    let ran = folder.run(&format!("{FIT} {arguments}"));
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    let all = format!("{}{}", ran.out, ran.err);
    said.iter().for_each(|words| assert!(all.contains(words), "{arguments}: expected `{words}` in {all}"));
    assert!(folder.path("run/finetuner.json").is_file());
    std::fs::remove_dir_all(folder.path("run")).unwrap();
}

#[test]
fn texts_alone_need_nothing_else() {
    let folder = Folder::with_model();
    let texts = String::from_utf8(folder.read("texts.txt")).unwrap();
    fits(&folder, "--train-data texts.txt", &["one text a line", "`MultipleNegativesRankingLoss`", "SimCSE"]);
    folder.write("one.csv", format!("text\n{texts}"));
    fits(&folder, "--train-data one.csv", &["read as single", "SimCSE"]);
    let lines: String = texts.lines().map(|text| format!("{{\"text\": \"{text}\"}}\n")).collect();
    folder.write("one.jsonl", lines);
    fits(&folder, "--train-data one.jsonl --sampler no_duplicates", &["read as single", "SimCSE"]);
    folder.write("blank.txt", "card chip\n\nrain wind\n");
    folder.fail(&format!("{FIT} --train-data blank.txt"), 1, &["blank.txt:2: expected a text"]);
}

#[test]
fn scored_triplets_are_read_in_every_form() {
    let folder = Folder::with_model();
    let said = &["read as scored_triplets", "`MarginMSELoss`"];
    folder.write("margin.csv", "query,positive,negative,margin\ncard chip,visa,rain,4.5\nloan,debt,wind snow,2\n");
    fits(&folder, "--train-data margin.csv", said);
    folder.write("bare.csv", "card chip,visa,rain,4.5,-1.5\nloan,debt,wind snow,2,0.5\n");
    fits(&folder, "--train-data bare.csv --kind scored_triplets --loss DistillKLDivLoss", &said[..1]);
    folder.write(
        "list.jsonl",
        "{\"query\": \"card\", \"positive\": \"visa\", \"negative\": [\"rain\", \"snow\"], \"label\": [3, 1.5, -2]}\n",
    );
    fits(&folder, "--train-data list.jsonl", said);
    folder.write(
        "flag.jsonl",
        "{\"query\": \"card\", \"pos\": [\"visa\", \"chip\"], \"neg\": [\"rain\"], \"pos_scores\": [3, 2.5], \"neg_scores\": [-2]}\n",
    );
    fits(&folder, "--train-data flag.jsonl", &["2 examples read as scored_triplets"]);

    for (name, contents, words) in [
        ("number.csv", "query,positive,negative,score\na,b,c,high\n", &["number.csv:2: expected a finite number"][..]),
        (
            "count.csv",
            "query,positive,negative,score1,score2,score3\na,b,c,1,2,3\n",
            &["count.csv:2: expected 1 margins", "or 2 scores", "got 3"],
        ),
        (
            "ragged.jsonl",
            "{\"query\": \"a\", \"pos\": \"b\", \"neg\": [\"c\"], \"scores\": [1]}\n\
             {\"query\": \"a\", \"pos\": \"b\", \"neg\": [\"c\", \"d\"], \"scores\": [1, 2]}\n",
            &["as in the first, 1 and 1, got 2 and 2"],
        ),
        (
            "flag.jsonl",
            "{\"query\": \"a\", \"pos\": [\"b\"], \"neg\": [\"c\"], \"pos_scores\": [1], \"neg_scores\": [1, 2]}\n",
            &["flag.jsonl:1: expected 1 scores of negatives, got 2"],
        ),
    ] {
        folder.write(name, contents);
        folder.fail(&format!("{FIT} --train-data {name}"), 1, words);
    }
}

#[test]
fn a_guide_is_a_model_like_any_other() {
    let folder = Folder::with_model();
    folder.write("pairs.csv", "anchor,positive\ncard chip,visa\nloan,debt\nrain,wind snow\nbread,oven\n");
    let guided = "--train-data pairs.csv --loss GISTEmbedLoss";
    fits(&folder, &format!("{guided} --guide model"), &[]);
    fits(&folder, "--train-data texts.txt --loss MSELoss --guide model", &[]);
    folder.fail(&format!("{FIT} {guided}"), 2, &["`guide`: `GISTEmbedLoss` compares with another model"]);
    folder.fail(&format!("{FIT} {guided} --guide nowhere/at/all"), 1, &["nowhere/at/all"]);
    folder.fail(&format!("{FIT} --train-data pairs.csv --sampler no_duplicate"), 2, &["did you mean `no_duplicates`"]);
}

#[test]
fn several_data_sets_are_learnt_at_once() {
    let folder = Folder::with_model();
    folder.write("pairs.csv", "anchor,positive\ncard chip,visa\nloan,debt\nrain,wind snow\nbread,oven\n");
    folder.write("scored.csv", "sentence1,sentence2,score\ncard,chip,0.9\ncard,snow,0.1\nloan,debt,0.8\nrain,oven,0\n");
    let flags = "--dataset train_data=pairs.csv,loss=MNRL --dataset train_data=scored.csv,batch_size=4 --dataset train_data=texts.txt";
    fits(&folder, flags, &["4 examples read as pairs", "loss: `CoSENTLoss`", "SimCSE"]);
    let spec = "dataset_sampler = \"round_robin\"\n\n[[datasets]]\ntrain_data = \"pairs.csv\"\nloss = \"MNRL\"\n\n\
                [[datasets]]\ntrain_data = \"scored.csv\"\nloss = \"CosineSimilarityLoss\"\n";
    folder.write("run.toml", spec);
    let ran = folder.run(&format!("{} --json", FIT.replace("fit ", "fit run.toml ")));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(folder.json("run/report.json")["training"]["steps"], 2);
    let shown = folder.succeed("fit run.toml --show-spec");
    assert!(shown.contains("[[datasets]]") && shown.contains("dataset_sampler = \"round_robin\""), "{shown}");

    for (flags, words) in [
        ("--dataset train_data=pairs.csv --train-data texts.txt", &["`train_data`: is given beside `datasets`"][..]),
        ("--dataset train_data=pairs.csv,batch_siz=4", &["`datasets[1].batch_siz`", "did you mean `batch_size`?"]),
        (
            "--dataset train_data=pairs.csv,loss=CoSENTLoss --dataset train_data=scored.csv",
            &["`CoSENTLoss` learns from scored pairs or triplets", "holds pairs"],
        ),
        ("--dataset train_data=pairs.csv --dataset-sampler robin", &["`dataset_sampler`"]),
    ] {
        let ran = folder.run(&format!("{} {flags}", FIT.replace("--output run", "--output refused")));
        ran.assert_failed(flags, 2, words);
    }
}

#[test]
fn columns_of_any_name_are_told_beside_the_file() {
    let folder = Folder::with_model();
    let rows = "sku,name,about\n1,card chip,visa\n2,loan,debt\n3,rain,wind snow\n4,bread,oven\n";
    folder.write("products.csv", rows);
    let told = "products.csv:anchor=name,positive=about";
    fits(&folder, &format!("--train-data {told} --query-data {told}"), &["4 examples read as pairs"]);
    let found = folder.succeed("search --model model --input products.csv:text=about,id=sku oven --top 1 --json");
    assert!(found.contains("\"id\":\"4\""), "{found}");
    folder.fail("search --model model --input products.csv oven", 1, &["products.csv:1: ", "products.csv:anchor=name"]);
    folder.fail("search --model model --input products.csv:text=abot oven", 1, &["did you mean `about`?"]);
    folder.write("run.toml", format!("train_data = \"{told}\"\n"));
    assert!(folder.succeed("fit run.toml --show-spec").contains(told));
    folder.fail(&format!("{FIT} --train-data train.csv:test"), 1, &["train.csv: is a file", "text=description"]);
}
