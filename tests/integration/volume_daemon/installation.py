"""The Volume Daemon's tables as an existing installation has them (columns, keys and defaults that matter here)."""

from __future__ import annotations

TABLES = (
    """CREATE TABLE device_mappings (
      id varchar(64) NOT NULL DEFAULT uuid(), vm_context_id varchar(64) DEFAULT NULL, volume_uuid varchar(64) NOT NULL,
      volume_id_numeric bigint(20) DEFAULT NULL, vm_id varchar(64) NOT NULL,
      operation_mode enum('oma','failover') DEFAULT 'oma', cloudstack_device_id int(11) DEFAULT NULL,
      requires_device_correlation tinyint(1) DEFAULT 1, device_path varchar(255) NOT NULL,
      cloudstack_state varchar(32) NOT NULL, linux_state varchar(32) NOT NULL, size bigint(20) NOT NULL,
      last_sync timestamp NULL DEFAULT current_timestamp(), created_at timestamp NULL DEFAULT current_timestamp(),
      updated_at timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
      ossea_snapshot_id varchar(191) DEFAULT NULL, snapshot_created_at timestamp NULL DEFAULT NULL,
      snapshot_status varchar(50) DEFAULT 'none', persistent_device_name varchar(255) DEFAULT NULL,
      symlink_path varchar(255) DEFAULT NULL,
      PRIMARY KEY (id), UNIQUE KEY (volume_uuid), UNIQUE KEY (device_path)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci""",
    """CREATE TABLE nbd_exports (
      id bigint(20) unsigned NOT NULL AUTO_INCREMENT, vm_context_id varchar(64) DEFAULT NULL,
      job_id varchar(191) DEFAULT NULL, volume_id varchar(64) DEFAULT '', vm_disk_id bigint(20) DEFAULT NULL,
      device_mapping_uuid varchar(64) DEFAULT NULL, export_name varchar(191) NOT NULL, port bigint(20) NOT NULL,
      device_path longtext NOT NULL, config_path longtext DEFAULT '', status varchar(191) NOT NULL DEFAULT 'pending',
      created_at datetime(3) DEFAULT NULL, updated_at datetime(3) DEFAULT NULL,
      PRIMARY KEY (id), UNIQUE KEY (export_name),
      FOREIGN KEY (device_mapping_uuid) REFERENCES device_mappings (volume_uuid) ON DELETE CASCADE
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci""",
    """CREATE TABLE volume_operations (
      id varchar(64) NOT NULL, type enum('create','attach','detach','delete','cleanup') NOT NULL,
      status enum('pending','executing','completed','failed','cancelled') NOT NULL DEFAULT 'pending',
      volume_id varchar(64) NOT NULL, vm_id varchar(64) DEFAULT NULL,
      request longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (json_valid(request)),
      response longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(response)),
      error text DEFAULT NULL, created_at timestamp NULL DEFAULT current_timestamp(),
      updated_at timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
      completed_at timestamp NULL DEFAULT NULL, PRIMARY KEY (id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci""",
    """CREATE TABLE volume_operation_history (
      id bigint(20) NOT NULL AUTO_INCREMENT, operation_id varchar(64) NOT NULL,
      previous_status enum('pending','executing','completed','failed','cancelled') DEFAULT NULL,
      new_status enum('pending','executing','completed','failed','cancelled') DEFAULT NULL,
      changed_at timestamp NULL DEFAULT current_timestamp(),
      details longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin DEFAULT NULL CHECK (json_valid(details)),
      PRIMARY KEY (id)
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci""",
)
