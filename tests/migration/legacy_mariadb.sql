-- A database as MigrateKit installations have it, grown over several of its versions: ENUM columns, TIMESTAMP and DATETIME side
-- by side with and without fractions, foreign keys, three collations, an ALTER-ed table, tables that we never use, and an
-- `alembic_version` of somebody else. `cbt_history` and `volume_operation_history` came later and are not there.

CREATE TABLE replication_jobs (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  vm_context_id VARCHAR(64) DEFAULT NULL,
  source_vm_name VARCHAR(255) NOT NULL DEFAULT '',
  status VARCHAR(50) NOT NULL DEFAULT 'pending',
  change_id VARCHAR(191) DEFAULT NULL,
  previous_change_id VARCHAR(191) DEFAULT NULL,
  nbd_export_name VARCHAR(191) DEFAULT NULL,
  progress_percent DOUBLE DEFAULT 0,
  started_at DATETIME(3) DEFAULT NULL,
  completed_at DATETIME(3) DEFAULT NULL,
  updated_at DATETIME(3) DEFAULT NULL,
  vma_last_poll_at TIMESTAMP NULL DEFAULT NULL,
  KEY idx_replication_jobs_status (status)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE vm_replication_contexts (
  context_id VARCHAR(64) NOT NULL PRIMARY KEY,
  vm_name VARCHAR(255) NOT NULL,
  vmware_vm_id VARCHAR(255) NOT NULL,
  vm_path VARCHAR(500) NOT NULL,
  vcenter_host VARCHAR(255) NOT NULL,
  datacenter VARCHAR(255) NOT NULL,
  current_status ENUM('discovered','replicating','ready_for_failover','failed_over_test','failed_over_live','completed','failed','cleanup_required') DEFAULT 'discovered',
  current_job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci DEFAULT NULL,
  total_jobs_run INT DEFAULT 0,
  successful_jobs INT DEFAULT 0,
  failed_jobs INT DEFAULT 0,
  last_successful_job_id VARCHAR(64) DEFAULT NULL,
  cpu_count INT DEFAULT NULL,
  memory_mb INT DEFAULT NULL,
  os_type VARCHAR(255) DEFAULT NULL,
  power_state VARCHAR(50) DEFAULT NULL,
  vm_tools_version VARCHAR(50) DEFAULT NULL,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  first_job_at TIMESTAMP NULL DEFAULT NULL,
  last_job_at TIMESTAMP NULL DEFAULT NULL,
  last_status_change TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  auto_added TINYINT(1) DEFAULT 0,
  scheduler_enabled TINYINT(1) DEFAULT 1,
  UNIQUE KEY uniq_vm_vcenter (vm_name, vcenter_host),
  KEY idx_current_job (current_job_id),
  CONSTRAINT fk_context_current_job FOREIGN KEY (current_job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

ALTER TABLE vm_replication_contexts
  ADD COLUMN credential_id INT DEFAULT NULL,
  ADD COLUMN ossea_config_id INT DEFAULT NULL,
  ADD COLUMN last_operation_summary LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(last_operation_summary));

CREATE TABLE ossea_configs (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name VARCHAR(191) NOT NULL,
  api_url VARCHAR(500) NOT NULL,
  api_key VARCHAR(191) NOT NULL,
  secret_key VARCHAR(191) NOT NULL,
  domain VARCHAR(191) DEFAULT NULL,
  zone VARCHAR(191) NOT NULL,
  template_id VARCHAR(191) DEFAULT NULL,
  network_id VARCHAR(191) DEFAULT NULL,
  service_offering_id VARCHAR(191) DEFAULT NULL,
  disk_offering_id VARCHAR(191) DEFAULT NULL,
  oma_vm_id VARCHAR(191) DEFAULT NULL,
  is_active TINYINT(1) DEFAULT 1,
  created_at DATETIME(3) DEFAULT NULL,
  updated_at DATETIME(3) DEFAULT NULL,
  UNIQUE KEY idx_ossea_configs_name (name)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;

CREATE TABLE ossea_volumes (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  vm_context_id VARCHAR(64) DEFAULT NULL,
  volume_id VARCHAR(191) NOT NULL,
  volume_name VARCHAR(191) NOT NULL,
  size_gb INT NOT NULL,
  ossea_config_id INT NOT NULL,
  volume_type VARCHAR(50) DEFAULT NULL,
  device_path VARCHAR(191) DEFAULT NULL,
  mount_point VARCHAR(191) DEFAULT NULL,
  status ENUM('creating','available','attached','detached','error') DEFAULT 'creating',
  snapshot_id VARCHAR(191) DEFAULT '',
  snapshot_created_at DATETIME DEFAULT NULL,
  snapshot_status ENUM('none','creating','ready','failed','rollback_complete') DEFAULT 'none',
  created_at DATETIME(3) DEFAULT NULL,
  updated_at DATETIME(3) DEFAULT NULL,
  UNIQUE KEY idx_ossea_volumes_volume_id (volume_id),
  KEY idx_ossea_volumes_context (vm_context_id),
  CONSTRAINT fk_volumes_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
  CONSTRAINT fk_volumes_config FOREIGN KEY (ossea_config_id) REFERENCES ossea_configs (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE vm_disks (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  vm_context_id VARCHAR(64) NOT NULL,
  job_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci DEFAULT NULL,
  disk_id VARCHAR(191) NOT NULL,
  size_gb INT NOT NULL DEFAULT 0,
  unit_number INT DEFAULT NULL,
  capacity_bytes BIGINT DEFAULT 0,
  ossea_volume_id INT DEFAULT NULL,
  disk_change_id VARCHAR(255) DEFAULT NULL,
  sync_status VARCHAR(64) DEFAULT 'pending',
  bytes_synced BIGINT DEFAULT 0,
  created_at DATETIME(3) DEFAULT NULL,
  updated_at DATETIME(3) DEFAULT NULL,
  UNIQUE KEY uniq_context_disk (vm_context_id, disk_id),
  CONSTRAINT fk_disks_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE,
  CONSTRAINT fk_disks_job FOREIGN KEY (job_id) REFERENCES replication_jobs (id) ON DELETE SET NULL,
  CONSTRAINT fk_disks_volume FOREIGN KEY (ossea_volume_id) REFERENCES ossea_volumes (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE failover_jobs (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  vm_context_id VARCHAR(64) DEFAULT NULL,
  job_id VARCHAR(191) NOT NULL,
  vm_id VARCHAR(191) NOT NULL,
  replication_job_id VARCHAR(191) DEFAULT NULL,
  job_type ENUM('live','test') NOT NULL,
  status ENUM('pending','validating','snapshotting','creating_vm','switching_volume','powering_on','completed','failed','cleanup','reverting') DEFAULT 'pending',
  source_vm_name VARCHAR(191) NOT NULL,
  source_vm_spec TEXT DEFAULT NULL,
  destination_vm_id VARCHAR(191) DEFAULT NULL,
  ossea_snapshot_id VARCHAR(191) DEFAULT NULL,
  network_mappings TEXT DEFAULT NULL,
  error_message TEXT DEFAULT NULL,
  created_at DATETIME(3) DEFAULT NULL,
  updated_at DATETIME(3) DEFAULT NULL,
  started_at DATETIME(3) DEFAULT NULL,
  completed_at DATETIME(3) DEFAULT NULL,
  UNIQUE KEY idx_failover_jobs_job_id (job_id),
  CONSTRAINT fk_failover_context FOREIGN KEY (vm_context_id) REFERENCES vm_replication_contexts (context_id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE job_tracking (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  parent_job_id VARCHAR(64) DEFAULT NULL,
  job_type VARCHAR(50) NOT NULL,
  operation VARCHAR(100) NOT NULL,
  status ENUM('pending','running','completed','failed','cancelled') NOT NULL DEFAULT 'pending',
  cloudstack_job_id VARCHAR(255) DEFAULT NULL,
  external_job_id VARCHAR(64) DEFAULT NULL,
  metadata LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(metadata)),
  error_message TEXT DEFAULT NULL,
  percent_complete TINYINT UNSIGNED DEFAULT NULL,
  owner VARCHAR(100) DEFAULT NULL,
  context_id VARCHAR(64) DEFAULT NULL,
  job_category ENUM('system','failover','replication','scheduler','discovery','bulk') DEFAULT 'system',
  started_at TIMESTAMP NULL DEFAULT NULL,
  completed_at TIMESTAMP NULL DEFAULT NULL,
  canceled_at TIMESTAMP NULL DEFAULT NULL,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  CONSTRAINT fk_tracking_parent FOREIGN KEY (parent_job_id) REFERENCES job_tracking (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE job_steps (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  job_id VARCHAR(64) NOT NULL,
  name VARCHAR(255) NOT NULL,
  seq INT NOT NULL,
  status ENUM('running','completed','failed','skipped') NOT NULL DEFAULT 'running',
  started_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  completed_at TIMESTAMP NULL DEFAULT NULL,
  error_message TEXT DEFAULT NULL,
  metadata LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(metadata)),
  UNIQUE KEY uniq_job_seq (job_id, seq),
  CONSTRAINT fk_steps_job FOREIGN KEY (job_id) REFERENCES job_tracking (id) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE log_events (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  job_id VARCHAR(64) DEFAULT NULL,
  step_id BIGINT DEFAULT NULL,
  level ENUM('DEBUG','INFO','WARN','ERROR') NOT NULL,
  message TEXT NOT NULL,
  attrs LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(attrs)),
  ts TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  external_job_id VARCHAR(64) DEFAULT NULL,
  CONSTRAINT fk_events_job FOREIGN KEY (job_id) REFERENCES job_tracking (id) ON DELETE CASCADE,
  CONSTRAINT fk_events_step FOREIGN KEY (step_id) REFERENCES job_steps (id) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE volume_operations (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  type ENUM('create','attach','detach','delete','cleanup') NOT NULL,
  status ENUM('pending','executing','completed','failed','cancelled') NOT NULL DEFAULT 'pending',
  volume_id VARCHAR(64) NOT NULL,
  vm_id VARCHAR(64) DEFAULT NULL,
  request LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (json_valid(request)),
  response LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(response)),
  error TEXT DEFAULT NULL,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  completed_at TIMESTAMP NULL DEFAULT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE device_mappings (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  volume_uuid VARCHAR(64) NOT NULL,
  volume_id_numeric BIGINT DEFAULT NULL,
  vm_id VARCHAR(64) NOT NULL,
  operation_mode ENUM('oma','failover') NOT NULL DEFAULT 'oma',
  cloudstack_device_id INT DEFAULT NULL,
  device_path VARCHAR(255) NOT NULL,
  cloudstack_state VARCHAR(32) NOT NULL,
  linux_state VARCHAR(32) NOT NULL,
  size BIGINT NOT NULL,
  ossea_snapshot_id VARCHAR(255) DEFAULT NULL,
  snapshot_created_at TIMESTAMP NULL DEFAULT NULL,
  snapshot_status VARCHAR(50) DEFAULT 'none',
  last_sync TIMESTAMP NULL DEFAULT NULL,
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY uniq_volume (volume_uuid),
  UNIQUE KEY uniq_device (device_path)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE nbd_exports (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  volume_id VARCHAR(64) NOT NULL,
  device_mapping_uuid VARCHAR(64) DEFAULT NULL,
  export_name VARCHAR(191) NOT NULL,
  device_path VARCHAR(255) NOT NULL,
  port INT NOT NULL DEFAULT 10809,
  status ENUM('pending','active','failed') DEFAULT 'pending',
  created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  UNIQUE KEY uniq_export (export_name),
  CONSTRAINT fk_export_mapping FOREIGN KEY (device_mapping_uuid) REFERENCES device_mappings (volume_uuid) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci;

CREATE TABLE replication_schedules (
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  name VARCHAR(255) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE alembic_version (
  version_num VARCHAR(32) NOT NULL PRIMARY KEY
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;

CREATE VIEW v_failed_jobs AS SELECT id, operation, status FROM job_tracking WHERE status = 'failed';

INSERT INTO alembic_version VALUES ('somebody_elses_0042');

INSERT INTO replication_jobs (id, vm_context_id, status, started_at, updated_at) VALUES ('job-1', 'ctx-pgtest1', 'completed', '2026-07-01 12:00:00.123', '2026-07-01 12:30:00.000');

INSERT INTO vm_replication_contexts (context_id, vm_name, vmware_vm_id, vm_path, vcenter_host, datacenter, current_status, current_job_id) VALUES ('ctx-pgtest1', 'pgtest1', 'vm-1', '/DC/vm/pgtest1', 'vc1.example.com', 'DC', 'failed_over_test', 'job-1'), ('ctx-unicode', 'сервер-1', 'vm-2', '/DC/vm/2', 'vc1.example.com', 'DC', 'ready_for_failover', NULL);

INSERT INTO ossea_configs (name, api_url, api_key, secret_key, zone, oma_vm_id) VALUES ('production', 'http://127.0.0.1:8080/client/api', 'key', 'secret', 'zone-1', '11111111-1111-4111-8111-111111111111');

INSERT INTO ossea_volumes (vm_context_id, volume_id, volume_name, size_gb, ossea_config_id, status, snapshot_id, snapshot_status) VALUES ('ctx-pgtest1', 'b3bb9310-1b59-4f62-97e8-cefffdfe3804', 'migration-pgtest1', 40, 1, 'attached', 'e2c6c2f5-4f1a-4d1c-8f39-3a2b1c0d9e8f', 'ready');

INSERT INTO vm_disks (vm_context_id, job_id, disk_id, size_gb, ossea_volume_id, disk_change_id) VALUES ('ctx-pgtest1', 'job-1', 'disk-2000', 40, 1, '52 0c 1f/123');

INSERT INTO failover_jobs (vm_context_id, job_id, vm_id, job_type, status, source_vm_name, created_at) VALUES ('ctx-pgtest1', 'failover-1', 'vm-1', 'test', 'pending', 'pgtest1', '2026-07-02 09:00:00.000');

INSERT INTO job_tracking (id, job_type, operation, status) VALUES ('failover-1', 'failover', 'test-failover', 'running');

INSERT INTO device_mappings (id, volume_uuid, vm_id, device_path, cloudstack_state, linux_state, size) VALUES ('map-1', 'b3bb9310-1b59-4f62-97e8-cefffdfe3804', '11111111-1111-4111-8111-111111111111', '/dev/vdb', 'attached', 'detected', 42949672960);
