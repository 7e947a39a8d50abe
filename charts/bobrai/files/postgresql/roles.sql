-- Brings roles and database to what the Secret says; run as superuser before every start, so it may find everything there.
\set ON_ERROR_STOP on
\getenv database APPLICATION_DATABASE
\getenv application APPLICATION_USER
\getenv application_password APPLICATION_PASSWORD
\getenv superuser_password SUPERUSER_PASSWORD
\set replication_password ''
\getenv replication_password REPLICATION_PASSWORD
\set monitoring_password ''
\getenv monitoring_password MONITORING_PASSWORD

ALTER ROLE postgres PASSWORD :'superuser_password';

SELECT format('CREATE ROLE %I', :'application')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'application') \gexec
ALTER ROLE :"application" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'application_password';

SELECT :'replication_password' <> '' AS replicates \gset
\if :replicates
SELECT 'CREATE ROLE replicator' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'replicator') \gexec
ALTER ROLE replicator LOGIN REPLICATION NOSUPERUSER PASSWORD :'replication_password';
\endif

SELECT :'monitoring_password' <> '' AS monitors \gset
\if :monitors
SELECT 'CREATE ROLE bobrai_monitor' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bobrai_monitor') \gexec
ALTER ROLE bobrai_monitor LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5
    PASSWORD :'monitoring_password';
GRANT pg_monitor TO bobrai_monitor;
\endif

SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'application')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
ALTER DATABASE :"database" OWNER TO :"application";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
\if :monitors
GRANT CONNECT ON DATABASE :"database" TO bobrai_monitor;
\endif

-- statistics of all databases are read here, so that a dump of the application's holds nothing that only a superuser can restore
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
