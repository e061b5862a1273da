include: "workflow/Snakefile"


rule default:
    """Everything that the config is for; an included file brings no default target along."""
    default_target: True
    input:
        rules.all.input,
    localrule: True
