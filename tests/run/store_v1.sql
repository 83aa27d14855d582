-- A store as the first version of its schema was written: `sqlite3 FILE .dump`, with the two PRAGMAs that it leaves out.
PRAGMA application_id = 1129466189;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE judge (
        id INTEGER PRIMARY KEY,
        asked TEXT NOT NULL,         -- JSON object: the signature before the judge has answered, which is part of the key
        answered TEXT NOT NULL,      -- JSON object: the signature then, with what an API tells only in answers
        crimson_core TEXT NOT NULL,  -- the version that judged
        UNIQUE (asked, answered, crimson_core)
    );
INSERT INTO "judge" VALUES(1,'{"judge":"counting","temperature":"0"}','{"judge":"counting","temperature":"0"}','0.1.0');
CREATE TABLE judgement (
        key BLOB PRIMARY KEY,        -- SHA-256 of asked, reference, candidate and context
        judge INTEGER NOT NULL REFERENCES judge (id),
        reference TEXT NOT NULL,
        candidate TEXT NOT NULL,
        context TEXT NOT NULL,       -- JSON list of [key, value], as the judge sees them
        evaluation TEXT,             -- JSON object, before the consistency repair; NULL where the judge failed
        failure TEXT,                -- why there is no evaluation, without report text
        repairs TEXT NOT NULL,       -- JSON list: what had to be mended to read the output
        raw_output TEXT,             -- the model's text, where there is one
        usage TEXT NOT NULL,         -- JSON object: token counts where they are known, of failures before this one, too
        cost REAL,                   -- US dollars, where the server tells
        seconds REAL NOT NULL,       -- from the judge's judgement before to this one; those of a run add up to its time
        judged_at TEXT NOT NULL      -- UTC, as 2026-01-31T12:00:00+00:00
    );
INSERT INTO "judgement" VALUES(X'93FB234DE7501527169F02943E6EA161DA0D14D17C1C5546B0F9DEE4B3C525D6',1,'Large pneumothorax.','','[]','{"reference_findings":[{"id":"R1","finding":"Large pneumothorax","clinical_significance":"urgent","span":[0,18]}],"predicted_findings":[],"matched_findings":[],"errors":{"false_findings":[],"missing_findings":["R1"],"attribute_errors":[]}}',NULL,'["mended"]','{…}','{"prompt_tokens":10,"completion_tokens":3}',0.25,0.5,'2026-11-28T02:31:45+00:00');
INSERT INTO "judgement" VALUES(X'AC203AFEF61EB9D361F54673218397CDD948FCBF8AEDE82B001E5A6E5EEC3B09',1,'Small left effusion.','Left effusion, small.','[["age","72"]]','{"reference_findings":[{"id":"R1","finding":"Small left effusion","clinical_significance":"actionable_not_urgent","span":[0,19]}],"predicted_findings":[{"id":"P1","finding":"Left effusion, small","clinical_significance":"actionable_not_urgent","span":[0,20]}],"matched_findings":[{"ref_id":"R1","pred_id":"P1"}],"errors":{"false_findings":[],"missing_findings":[],"attribute_errors":[]}}',NULL,'["mended"]','{…}','{"prompt_tokens":10,"completion_tokens":3}',0.25,0.5,'2026-11-28T02:31:45+00:00');
CREATE INDEX judgement_judge ON judgement (judge);
COMMIT;
