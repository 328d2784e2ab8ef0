# frozen_string_literal: true

# The gems of the app's lock file were installed with its deploy, and are on the load path: what is
# left of Bundler is to require them.

module Bundler
  class BundlerError < StandardError; end
  class GemNotFound < BundlerError; end

  class << self
    def setup(*) = self

    def require(*)
      Isopod::Config.gems.each do |name|
        Kernel.require(name)
      rescue LoadError => error
        raise unless error.path == name && name.include?("-")
        Kernel.require(name.tr("-", "/"))
      end
    end

    def root = Pathname("/app")
    def default_gemfile = root.join("Gemfile")
    def with_unbundled_env = yield
    alias with_clean_env with_unbundled_env
  end
end
