BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE apps (
	name TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	live_version INTEGER, 
	source TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "apps" VALUES('hello',1.0,1,'m:/hello');
CREATE TABLE builds (
	"key" TEXT NOT NULL, 
	package TEXT NOT NULL, 
	runtimes TEXT NOT NULL, 
	app_tree TEXT NOT NULL, 
	site_tree TEXT NOT NULL, 
	dependencies TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "builds" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','r','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','[["flask", "3.1"]]',2.0);
CREATE TABLE meta (
	id INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	CHECK (id = 1)
);
INSERT INTO "meta" VALUES(1,1);
CREATE TABLE versions (
	app TEXT NOT NULL, 
	number INTEGER NOT NULL, 
	digest TEXT NOT NULL, 
	input TEXT NOT NULL, 
	package TEXT NOT NULL, 
	build_key TEXT NOT NULL, 
	app_tree TEXT NOT NULL, 
	site_tree TEXT NOT NULL, 
	dependencies TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	sha256 TEXT NOT NULL, 
	PRIMARY KEY (app, number), 
	UNIQUE (app, digest), 
	FOREIGN KEY(app) REFERENCES apps (name) ON DELETE CASCADE
);
INSERT INTO "versions" VALUES('hello',1,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','[["flask", "3.1"]]','{"entrypoint": "app:app", "env": {"SECRET": "hunter2"}, "health": {"path": "/"}, "limits": {"deadline_ms": 30000, "max_request_mib": 100, "memory_mib": 256}, "name": "hello", "runtime": "python", "scaling": {"idle_s": 60.0, "max_instances": 8, "queue": 500}}',2.0,'a03d2317385a915e69851d516a3a53f0d422d7cc302caab3dc963a79c2ee2c48');
CREATE INDEX builds_by_package ON builds (package, runtimes);
CREATE INDEX versions_by_input ON versions (input);
COMMIT;
