# frozen_string_literal: true

# What an image of a booted app may hold, and what each instance that starts from it makes anew.

module Isopod
  # Who reads a setting before the snapshot. ENV is the only way to one.
  module Watch
    @names = {}
    @read = {}
    @watches = false

    class << self
      attr_reader :read

      def start(names)
        names.each { |name| @names[name] = true }
        @watches = true
        ENV.singleton_class.prepend(Environment)
      end

      def stop = @watches = false

      def note(name)
        return unless @watches && @names[name] && !@read[name]
        @read[name] = place
      end

      def note_all = @watches && @names.each_key { |name| note(name) }

      def place
        found = caller_locations.find { |one| one.path&.start_with?("/app/") }
        found ? "#{found.path.delete_prefix("/app/")}:#{found.lineno}" : "a gem"
      end
    end

    module Environment
      %i[[] fetch key? include? member? has_key? assoc delete []= store].each do |name|
        define_method(name) do |*arguments, &block|
          Watch.note(arguments[0].to_s)
          super(*arguments, &block)
        end
      end

      %i[values_at slice except].each do |name|
        define_method(name) do |*arguments|
          arguments.each { |one| Watch.note(one.to_s) }
          super(*arguments)
        end
      end

      %i[
        to_h to_hash to_a each each_pair each_value values value? has_value? key rassoc inspect
        select filter reject select! filter! reject! keep_if delete_if find_all map collect
        filter_map invert clone replace update merge! shift clear find detect any? all? none?
        each_with_object inject reduce sort_by group_by partition to_set
      ].each do |name|
        define_method(name) do |*arguments, **named, &block|
          Watch.note_all
          super(*arguments, **named, &block)
        end
      end
    end
  end

  # Generators whose state is in the image: two instances of it would draw the same numbers.
  module Unique
    @generators = []

    class << self
      # One that was made with a small number was meant to give what it gives.
      def remember
        ObjectSpace.each_object(Random) do |one|
          @generators << one if one.seed.bit_length > 64
        end
      end

      def renew
        Random.srand
        @generators.each { |one| one.send(:initialize_copy, Random.new) }
        OpenSSL::Random.seed(Random.urandom(48)) if defined?(::OpenSSL::Random)
      end
    end
  end

  module Snapshot
    class << self
      # Tells what an image would hold; its memory is captured when this has returned.
      def prepare(hook)
        require "json"
        run(hook)
        Watch.stop
        GC.start
        findings = open_files + temporary_files
        Unique.remember
        Isopod.flush
        # Survivors are old from now on: a collection leaves their pages alone.
        Process.warmup
        report(findings)
      rescue Exception => error
        report([["hook", "#{error.class}: #{error.message}", ""]])
      end

      # "Shop::Store:open", as the manifest has it.
      def run(hook)
        return if hook.empty?
        owner, _, name = hook.rpartition(":")
        Object.const_get(owner).public_send(name)
      end

      private

      def report(findings)
        Isopod.call("R#{JSON.generate("read" => Watch.read, "findings" => findings)}".b)
      end

      def open_files
        found = ObjectSpace.each_object(IO).reject { |one| one.closed? || one.fileno <= 2 }
        found.map { |one| ["open file", (one.path if one.respond_to?(:path)) || one.inspect, ""] }
      end

      def temporary_files
        Dir.children("/tmp").sort.first(20).map { |name| ["temporary file", "/tmp/#{name}", ""] }
      end
    end
  end
end
