! Interfaces of the C functions of penstock.h that penstock_connection.f90 calls.
module penstock_c
  use, intrinsic :: iso_c_binding
  implicit none

  type, bind(c) :: c_field ! penstock_field of penstock.h
    type(c_ptr) :: name
    integer(c_int) :: dtype
    integer(c_int32_t) :: components
    integer(c_int32_t) :: n_dimensions
    type(c_ptr) :: shape
    integer(c_int) :: is_static
  end type c_field

  interface
    function c_connect(handle, file, rank, ranks) bind(c, name="penstock_connect") result(status)
      import :: c_ptr, c_int, c_int32_t
      type(c_ptr), intent(out) :: handle
      type(c_ptr), value :: file
      integer(c_int32_t), value :: rank, ranks
      integer(c_int) :: status
    end function c_connect

    function c_begin(handle) bind(c, name="penstock_begin") result(status)
      import :: c_ptr, c_int
      type(c_ptr), value :: handle
      integer(c_int) :: status
    end function c_begin

    function c_simulation(handle) bind(c, name="penstock_simulation") result(id)
      import :: c_ptr, c_int64_t
      type(c_ptr), value :: handle
      integer(c_int64_t) :: id
    end function c_simulation

    function c_attempt(handle) bind(c, name="penstock_attempt") result(number)
      import :: c_ptr, c_int32_t
      type(c_ptr), value :: handle
      integer(c_int32_t) :: number
    end function c_attempt

    function c_is_validation(handle) bind(c, name="penstock_is_validation") result(held_out)
      import :: c_ptr, c_int
      type(c_ptr), value :: handle
      integer(c_int) :: held_out
    end function c_is_validation

    function c_parameters(handle, names, values) bind(c, name="penstock_parameters") result(number)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: handle
      type(c_ptr), intent(out) :: names, values
      integer(c_size_t) :: number
    end function c_parameters

    function c_announce(handle, fields, number) bind(c, name="penstock_announce") result(status)
      import :: c_ptr, c_int, c_size_t, c_field
      type(c_ptr), value :: handle
      type(c_field), intent(in) :: fields(*)
      integer(c_size_t), value :: number
      integer(c_int) :: status
    end function c_announce

    function c_indices(handle, field, points, number) bind(c, name="penstock_indices") result(status)
      import :: c_ptr, c_int, c_size_t, c_int64_t
      type(c_ptr), value :: handle
      integer(c_size_t), value :: field
      integer(c_int64_t), intent(in) :: points(*)
      integer(c_int64_t), value :: number
      integer(c_int) :: status
    end function c_indices

    function c_wanted(handle, field) bind(c, name="penstock_wanted") result(needed)
      import :: c_ptr, c_int, c_size_t
      type(c_ptr), value :: handle
      integer(c_size_t), value :: field
      integer(c_int) :: needed
    end function c_wanted

    function c_send(handle, field, step, time, dtype, values, offset, number) bind(c, name="penstock_send") &
        result(status)
      import :: c_ptr, c_int, c_size_t, c_int64_t, c_double
      type(c_ptr), value :: handle, values
      integer(c_size_t), value :: field
      integer(c_int64_t), value :: step, offset, number
      real(c_double), value :: time
      integer(c_int), value :: dtype
      integer(c_int) :: status
    end function c_send

    function c_step_sent(handle) bind(c, name="penstock_step_sent") result(status)
      import :: c_ptr, c_int
      type(c_ptr), value :: handle
      integer(c_int) :: status
    end function c_step_sent

    function c_flush(handle) bind(c, name="penstock_flush") result(status)
      import :: c_ptr, c_int
      type(c_ptr), value :: handle
      integer(c_int) :: status
    end function c_flush

    function c_finish(handle) bind(c, name="penstock_finish") result(status)
      import :: c_ptr, c_int
      type(c_ptr), value :: handle
      integer(c_int) :: status
    end function c_finish

    function c_fail(handle, message) bind(c, name="penstock_fail") result(status)
      import :: c_ptr, c_int, c_char
      type(c_ptr), value :: handle
      character(kind=c_char), intent(in) :: message(*)
      integer(c_int) :: status
    end function c_fail

    subroutine c_close(handle) bind(c, name="penstock_close")
      import :: c_ptr
      type(c_ptr), value :: handle
    end subroutine c_close

    function c_error(handle) bind(c, name="penstock_error") result(text)
      import :: c_ptr
      type(c_ptr), value :: handle
      type(c_ptr) :: text
    end function c_error

    function c_strlen(text) bind(c, name="strlen") result(length)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function c_strlen
  end interface
end module penstock_c
