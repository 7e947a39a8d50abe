"""Pure values: tasks, states, messages, retry policy, errors. No I/O, no clock, nothing imported from above."""
