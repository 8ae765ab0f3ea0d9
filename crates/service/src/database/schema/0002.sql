-- Why a file is there no more.
ALTER TABLE files ADD COLUMN reason TEXT;

-- Runs that begin with what other runs have learnt.
CREATE TABLE run_models (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    model_id TEXT NOT NULL REFERENCES runs (id),
    PRIMARY KEY (run_id, model_id)
);
CREATE INDEX run_models_by_model ON run_models (model_id);
