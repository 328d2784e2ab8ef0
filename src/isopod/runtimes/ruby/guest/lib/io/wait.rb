# frozen_string_literal: true

# IO has these methods itself since Ruby 3.
