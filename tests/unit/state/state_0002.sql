BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE apps (
	name TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	live_version INTEGER, 
	source TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "apps" VALUES('hello',1.0,1,'m:/hello');
INSERT INTO "apps" VALUES('shop',1.0,1,'m:/shop');
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
INSERT INTO "meta" VALUES(1,2);
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
	sha256 TEXT NOT NULL, snapshot TEXT, twin TEXT, shape TEXT, 
	PRIMARY KEY (app, number), 
	UNIQUE (app, digest), 
	FOREIGN KEY(app) REFERENCES apps (name) ON DELETE CASCADE
);
INSERT INTO "versions" VALUES('hello',1,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','[["flask", "3.1"]]','{"debug": false, "entrypoint": "app:app", "env": {"SECRET": "hunter2"}, "health": {"path": "/"}, "isolation": {"cordon": "shared", "mode": "app"}, "limits": {"cpu_ms_per_request": 0, "deadline_ms": 30000, "disk_mib": 256, "log_kib_per_s": 256, "max_request_mib": 100, "max_response_mib": 1024, "memory_mib": 256}, "name": "hello", "runtime": "python", "scaling": {"idle_s": 60.0, "max_instances": 8, "queue": 500}, "startup": {"after_restore": "", "before_snapshot": "", "snapshot": true, "warmup": [{"body": "", "headers": [], "method": "GET", "path": "/"}]}}',2.0,'2422360a9f231895fbb804ad63025fe4105c6da4a03c65da166fc972b2cc7018',NULL,'1111111111111111111111111111111111111111111111111111111111111111','2222222222222222222222222222222222222222222222222222222222222222');
INSERT INTO "versions" VALUES('shop',1,'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','[["flask", "3.1"]]','{"debug": false, "entrypoint": "app:app", "env": {"SECRET": "hunter2"}, "health": {"path": "/"}, "isolation": {"cordon": "shared", "mode": "app"}, "limits": {"cpu_ms_per_request": 0, "deadline_ms": 30000, "disk_mib": 256, "log_kib_per_s": 256, "max_request_mib": 100, "max_response_mib": 1024, "memory_mib": 256}, "name": "shop", "runtime": "python", "scaling": {"idle_s": 60.0, "max_instances": 8, "queue": 500}, "startup": {"after_restore": "", "before_snapshot": "", "snapshot": true, "warmup": [{"body": "", "headers": [], "method": "GET", "path": "/"}]}}',2.0,'713fb938a4bd7dac69c5b2deb82fa1efd4de31f1254e4226c806e5d5b60036b9','{"verdict": "unwarmed", "image": "", "runtime": "", "size": 0, "own_bytes": 0, "blob_bytes": 0, "private": true, "why": "why", "findings": [{"kind": "open file", "what": "/tmp/x", "place": "a.py:1"}]}','1111111111111111111111111111111111111111111111111111111111111111','2222222222222222222222222222222222222222222222222222222222222222');
CREATE INDEX builds_by_package ON builds (package, runtimes);
CREATE INDEX versions_by_input ON versions (input);
CREATE INDEX versions_by_twin ON versions (twin, created_at);
CREATE INDEX versions_by_shape ON versions (shape, created_at);
COMMIT;
