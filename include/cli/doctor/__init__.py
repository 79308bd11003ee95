"""`./modlake doctor`: whether an installation is fit for its first night, and what to mend if not."""
