CREATE DATABASE modlake_catalog;
