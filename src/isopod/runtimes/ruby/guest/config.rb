# frozen_string_literal: true

# Finds the gems of an app, and evaluates its config.ru: by Rack's own builder where the app has the
# gem, else by the few words of it that need none.

module Isopod
  module Config
    GEMS = "/site/isopod/load_path"
    REQUIRED = "/site/isopod/require"
    STANDARD = "/usr/local/lib/ruby/gems/*/gems/*/lib"

    class << self
      def load(entrypoint)
        path = "/app/#{entrypoint}"
        $LOAD_PATH.unshift("/isopod/lib", *lines(GEMS).map { |one| "/site/#{one}" })
        $LOAD_PATH.concat(Dir.glob(STANDARD).sort)
        Dir.chdir("/app")
        $0 = path
        ENV["RACK_ENV"] ||= "production"
        return evaluate(path) unless rack?
        # Rack 2 gives the options of the first line, too.
        app, = Rack::Builder.parse_file(path)
        app
      end

      # What Bundler.require requires.
      def gems = lines(REQUIRED)

      private

      # Apart from what follows: an app's own error would have this one as its cause.
      def rack?
        require "rack"
        true
      rescue LoadError => error
        raise unless error.path == "rack"
        false
      end

      # At the top level, where the constants of a config.ru belong; as Rack does it.
      def evaluate(path)
        source = File.read(path).sub(/^__END__\n.*/m, "")
        TOPLEVEL_BINDING.eval("Isopod::Builder.new {(\n#{source}\n)}.to_app", path, 0)
      end

      def lines(path)
        File.exist?(path) ? File.readlines(path, chomp: true) : []
      end
    end
  end

  # run, use, map, warmup and freeze_app of a config.ru.
  class Builder
    def initialize(&block)
      @use, @map, @warmup = [], {}, nil
      @run = nil
      @freeze = false
      instance_eval(&block) if block
    end

    def use(middleware, *arguments, **named, &block)
      @use << proc { |app| middleware.new(app, *arguments, **named, &block) }
    end

    def run(app = nil, &block)
      @run = app || block
    end

    def map(path, &block) = @map[path.chomp("/")] = Builder.new(&block)
    def warmup(callable = nil, &block) = @warmup = callable || block
    def freeze_app = @freeze = true

    def to_app
      app = @map.empty? ? @run : Mapped.new(@map.transform_values(&:to_app), @run)
      raise "config.ru says neither run nor map" unless app
      app.freeze if @freeze
      app = @use.reverse.inject(app) { |inner, one| one.call(inner).tap { |made| made.freeze if @freeze } }
      @warmup&.call(app)
      app
    end
  end

  # The longest prefix of a path decides.
  class Mapped
    def initialize(apps, otherwise)
      @apps = apps.sort_by { |path, _| -path.size }
      @otherwise = otherwise
    end

    def call(env)
      path, script = env["PATH_INFO"], env["SCRIPT_NAME"]
      prefix, app = @apps.find { |one, _| path == one || path.start_with?("#{one}/") }
      return missing unless app || @otherwise
      return @otherwise.call(env) unless app
      begin
        app.call(env.merge!("SCRIPT_NAME" => script + prefix, "PATH_INFO" => path.delete_prefix(prefix)))
      ensure
        env.merge!("SCRIPT_NAME" => script, "PATH_INFO" => path)
      end
    end

    private

    def missing = [404, { "content-type" => "text/plain" }, ["Not Found\n"]]
  end
end
