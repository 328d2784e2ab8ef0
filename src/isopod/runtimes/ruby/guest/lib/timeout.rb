# frozen_string_literal: true

# Ruby for WebAssembly has no threads, which the standard Timeout needs: a block that took too long
# is told so when it ends. What never ends is ended by the app's deadline.

module Timeout
  class ExitException < Exception; end

  class Error < RuntimeError
    def self.handle_timeout(message) = raise(self, message)
  end

  def self.timeout(seconds, kind = nil, message = nil)
    return yield(seconds) if seconds.nil? || seconds.zero?
    raise ArgumentError, "Timeout sec must be a non-negative number" if seconds.negative?
    began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    result = yield(seconds)
    took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - began
    raise kind || Error, message || "execution expired" if took > seconds
    result
  end

  def timeout(...) = Timeout.timeout(...)
  private :timeout
end
